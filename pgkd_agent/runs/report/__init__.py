"""`report.html` of a run: one file, nothing loaded from elsewhere; and the card of its model."""

from pgkd_agent.runs.report.page import CARD, COMPARISON, REPORT, write_card, write_comparison, write_report

__all__ = ["CARD", "COMPARISON", "REPORT", "write_card", "write_comparison", "write_report"]
