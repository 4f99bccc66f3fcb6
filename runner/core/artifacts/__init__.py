"""What is signed: manifests and keys, the store, kernels, compile caches, profiles. TRUSTED."""
