"""Filters: read, checked, made from a template, watched while they are edited."""

from __future__ import annotations

from retinue.apps.ar.filters.check import check
from retinue.apps.ar.filters.load import Filter, folder, load, names
from retinue.apps.ar.filters.problems import Problem
from retinue.apps.ar.filters.template import new
from retinue.apps.ar.filters.watch import Watched

__all__ = ["Filter", "Problem", "Watched", "check", "folder", "load", "names", "new"]
