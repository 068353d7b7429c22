"""Reports: figures, tables and findings on one page."""

from microtome.report.document import (
    VERDICTS,
    Document,
    Finding,
    Picture,
    Section,
    Snippet,
    Table,
    TokenRow,
)
from microtome.report.folder import write_folder
from microtome.report.html import render
from microtome.report.of_sweep import document_of_sweep, summary_of_sweep

__all__ = [
    "VERDICTS",
    "Document",
    "Finding",
    "Picture",
    "Section",
    "Snippet",
    "Table",
    "TokenRow",
    "document_of_sweep",
    "render",
    "summary_of_sweep",
    "write_folder",
]
