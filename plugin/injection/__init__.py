"""How a container gets to see the GPUs that it was lent: device lists, device nodes and CDI."""
