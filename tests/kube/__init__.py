"""The client and the reflector against real HTTP servers."""
