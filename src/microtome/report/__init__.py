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
from microtome.report.folder import Beginning, Folder, write_folder, write_index
from microtome.report.html import render, render_index, texts_of
from microtome.report.layout import check_folder, check_index, kept_in
from microtome.report.of_aggregates import document_of_aggregates, summary_of_aggregates
from microtome.report.of_sweep import document_of_sweep, summary_of_sweep
from microtome.report.overview import (
    ClaimRow,
    OnModel,
    Overview,
    StudyRows,
    render_overview,
    write_overview,
)

__all__ = [
    "VERDICTS",
    "Beginning",
    "Card",
    "ClaimRow",
    "Document",
    "Finding",
    "Folder",
    "Index",
    "OnModel",
    "Overview",
    "Picture",
    "Section",
    "Snippet",
    "StudyRows",
    "Table",
    "TokenRow",
    "check_folder",
    "check_index",
    "document_of_aggregates",
    "document_of_sweep",
    "kept_in",
    "render",
    "render_index",
    "render_overview",
    "summary_of_aggregates",
    "summary_of_sweep",
    "texts_of",
    "verdict_counts",
    "write_folder",
    "write_index",
    "write_overview",
]
