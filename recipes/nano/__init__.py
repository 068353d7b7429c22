"""The recipe of `nano`, the embedded model: words → corpus → tokenizer → training → card."""
