"""Prompts: texts, tokens, roles, alignment, tasks; where addresses land in them."""
