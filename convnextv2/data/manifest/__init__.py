"""Reads tables of images: CSV, TSV, JSON and lists, as Excel, Kaggle and pandas write them."""

from convnextv2.data.manifest.label_sets import LabelKind, LabelSets
from convnextv2.data.manifest.packed import Words, count_words, quoted
from convnextv2.data.manifest.table import Table, read_table

__all__ = ["LabelKind", "LabelSets", "Table", "Words", "count_words", "quoted", "read_table"]
