"""Trained runs as one page to read, self-contained and the same byte for byte."""

from pyro_dpvae.report.contents import Opening, RunContents, contents_of
from pyro_dpvae.report.page import report_page

__all__ = ["Opening", "RunContents", "contents_of", "report_page"]
