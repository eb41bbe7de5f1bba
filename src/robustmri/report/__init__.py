"""Pictures, tables and one self-contained HTML page: a pure function of the result folders."""

from robustmri.report.html import write_page
from robustmri.report.tables import Published, Table, as_markdown, comparison_table

__all__ = ["Published", "Table", "as_markdown", "comparison_table", "write_page"]
