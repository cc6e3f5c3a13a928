"""How a container is kept within its share: one module for each rung of the ladder, and the choice between them."""
