"""Launches the event-lora job: the same as `python -m kronos_service.finetune event-lora`."""

import sys

from kronos_service.finetune.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["event-lora", *sys.argv[1:]]))
