"""What a run leaves: its directory, records, summary, report, and the ways in and out."""
