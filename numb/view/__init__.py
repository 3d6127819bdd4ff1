"""Rows to what a person or a program reads: tables, JSON, CSV, reports. Nothing here knows where rows come from."""
