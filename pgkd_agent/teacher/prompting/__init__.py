"""From a step's findings to prompts, and from replies to samples."""
