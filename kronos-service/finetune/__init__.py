"""Commands that prepare data and train adapters."""

PROGRAM = "python -m kronos_service.finetune"
"""How the commands are called, in help and in what is printed to be typed next."""
