"""nflib: base models, bit errors and generators for a reproducible study of NeuralFuse."""
