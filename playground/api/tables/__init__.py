"""What ``kubectl get`` shows: objects as rows of a table, as kube-apiserver prints them.

One module for each family of kinds says which columns there are and what stands in them; ``table`` makes the
``meta.k8s.io/v1`` Table of it.
"""
