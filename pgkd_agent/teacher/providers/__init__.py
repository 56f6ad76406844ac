"""Chat models of each provider: built, and what each can do."""
