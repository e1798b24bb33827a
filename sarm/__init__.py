"""SARM in parts: truncated language model, TopK sparse autoencoder, linear reward head, and the jobs that train and score them."""
