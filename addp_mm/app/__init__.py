# Copyright (c) addp_mm contributors. Apache-2.0.
"""The page of ``addp app``: one module for each tab. It needs the extra ``app`` (Gradio)."""
