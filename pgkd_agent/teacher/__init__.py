"""The teacher: any LangChain chat model behind a prompt variant, sample-by-sample parsing and a call log."""
