"""The scheduler extender: which node and which GPU a pod gets, and the ledger of what is taken."""
