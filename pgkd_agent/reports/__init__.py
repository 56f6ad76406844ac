"""`report.html` of a run: one file, nothing loaded from elsewhere."""

from pgkd_agent.reports.page import COMPARISON, REPORT, write_comparison, write_report

__all__ = ["COMPARISON", "REPORT", "write_comparison", "write_report"]
