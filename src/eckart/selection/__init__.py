"""Deciding where and how much to clip. Importing the package imports nothing."""
