"""How full a cluster gets: all policies, and FGD as published, on traces of a production cluster."""
