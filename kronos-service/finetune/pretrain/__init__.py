"""Train a small base (tokenizer, then predictor) from the bars of a snapshot."""
