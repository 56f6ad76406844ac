"""The student: a BERT-type classifier, its training loop, and the saved model as a Runnable."""
