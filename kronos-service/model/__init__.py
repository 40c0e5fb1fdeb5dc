"""The network: quantizer, tokenizer, layers, Kronos, event embedding, generation, factory."""
