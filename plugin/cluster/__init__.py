"""The API server: the pods of this node, and the GPUNode that this plugin publishes."""
