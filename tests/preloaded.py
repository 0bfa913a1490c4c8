"""Modules that the fork server imports before forking; none of them starts threads or computes."""

# ruff: noqa: F401

import h5py
import hdf5plugin
import keras
import matplotlib.figure
import numba
import sklearn.linear_model
import sklearn.model_selection
import sklearn.pipeline

import vggft.api
import vggft.cli.app
