"""The kubelet: the interfaces it offers and asks for, and the cgroups that it makes."""
