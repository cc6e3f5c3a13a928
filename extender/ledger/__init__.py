"""The ledger of the whole cluster in Redis: the Lua that keeps it, its adapter, the stream of its changes."""
