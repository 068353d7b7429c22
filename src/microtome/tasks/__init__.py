"""Tasks: prompts made from templates, in the words of the tokenizer at hand; one file a task."""

from microtome.tasks.capitals import capitals
from microtome.tasks.greater_than import greater_than
from microtome.tasks.ioi import ioi
from microtome.tasks.quotes import quotes

__all__ = ["capitals", "greater_than", "ioi", "quotes"]
