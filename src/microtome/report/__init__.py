"""Reports: figures, tables and findings on one page."""

from microtome.report.document import (
    VERDICTS,
    Card,
    Document,
    Finding,
    Index,
    Picture,
    Section,
    Snippet,
    Table,
    TokenRow,
    verdict_counts,
)
from microtome.report.folder import write_folder
from microtome.report.html import render, render_index, texts_of
from microtome.report.of_sweep import document_of_sweep, summary_of_sweep

__all__ = [
    "VERDICTS",
    "Card",
    "Document",
    "Finding",
    "Index",
    "Picture",
    "Section",
    "Snippet",
    "Table",
    "TokenRow",
    "document_of_sweep",
    "render",
    "render_index",
    "summary_of_sweep",
    "texts_of",
    "verdict_counts",
    "write_folder",
]
