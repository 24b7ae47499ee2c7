"""Comparisons of two answers to a question by a judge, and agreement between judges and people."""
