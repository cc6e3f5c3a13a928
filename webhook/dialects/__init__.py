"""The languages in which manifests for other tools ask for GPUs, one module for each, and their translation to ours."""
