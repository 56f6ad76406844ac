"""A trained student at work beside an LLM, and over HTTP."""
