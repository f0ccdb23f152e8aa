"""The look, *Topaz Cinema Slate*: colours and type for Gradio's theme, and where the assets are.

What the theme's variables cannot say is in ``assets/style.css``; what needs a script is in
``assets/head.js``. Fonts come from ``assets/fonts``, served by this program: no page of the studio
asks another machine for anything.
"""

from __future__ import annotations

from pathlib import Path

import gradio as gr
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

ASSETS = Path(__file__).resolve().parent / "assets"
SEEDS = ASSETS / "seed_inputs"
CSS, SCRIPT, ICON = ASSETS / "style.css", ASSETS / "head.js", ASSETS / "icon.svg"
ROUTE = "/studio-assets"  # style.css names its fonts relative to the page, under this path

SLATE, PANEL, RAISED = "#12161B", "#1A1F26", "#212730"
BORDER, BORDER_STRONG = "#262C35", "#4A5462"
TEXT, SUBDUED = "#E6E8EB", "#9AA4B0"
AMBER, AMBER_LIGHT, AMBER_DARK = "#E0A458", "#EBB976", "#C98C3E"
RED, RED_SURFACE = "#F08A80", "#2A1B1D"

# Gradio's own names of the variables; each is set for light and dark alike, so that a visitor's
# system setting changes nothing.
VARIABLES = {
    "body_background_fill": SLATE,
    "body_text_color": TEXT,
    "body_text_color_subdued": SUBDUED,
    "background_fill_primary": SLATE,
    "background_fill_secondary": PANEL,
    "border_color_primary": BORDER,
    "border_color_accent": AMBER,
    "border_color_accent_subdued": BORDER_STRONG,
    "color_accent": AMBER,
    "color_accent_soft": "#2B2620",
    "link_text_color": AMBER,
    "link_text_color_hover": AMBER_LIGHT,
    "link_text_color_active": AMBER,
    "link_text_color_visited": AMBER,
    "block_background_fill": PANEL,
    "block_border_color": BORDER,
    "block_label_background_fill": PANEL,
    "block_label_text_color": SUBDUED,
    "block_label_border_color": BORDER,
    "block_title_text_color": TEXT,
    "block_info_text_color": SUBDUED,
    "panel_background_fill": PANEL,
    "panel_border_color": BORDER,
    "accordion_text_color": TEXT,
    "input_background_fill": SLATE,
    "input_background_fill_focus": SLATE,
    "input_background_fill_hover": SLATE,
    "input_border_color": BORDER_STRONG,
    "input_border_color_focus": AMBER,
    "input_border_color_hover": "#5C6775",
    "input_placeholder_color": "#8B95A1",
    "checkbox_background_color": SLATE,
    "checkbox_background_color_selected": AMBER,
    "checkbox_border_color": BORDER_STRONG,
    "checkbox_border_color_selected": AMBER,
    "checkbox_border_color_focus": AMBER,
    "checkbox_label_background_fill": SLATE,
    "checkbox_label_background_fill_hover": RAISED,
    "checkbox_label_background_fill_selected": "#2B2620",
    "checkbox_label_border_color": BORDER,
    "checkbox_label_border_color_selected": AMBER_DARK,
    "checkbox_label_text_color": TEXT,
    "checkbox_label_text_color_selected": TEXT,
    "button_primary_background_fill": AMBER,
    "button_primary_background_fill_hover": AMBER_LIGHT,
    "button_primary_border_color": AMBER,
    "button_primary_text_color": SLATE,
    "button_primary_text_color_hover": SLATE,
    "button_secondary_background_fill": RAISED,
    "button_secondary_background_fill_hover": BORDER,
    "button_secondary_border_color": BORDER_STRONG,
    "button_secondary_text_color": TEXT,
    "button_secondary_text_color_hover": TEXT,
    "button_cancel_background_fill": RED_SURFACE,
    "button_cancel_background_fill_hover": "#3A2224",
    "button_cancel_border_color": "#7A3B3B",
    "button_cancel_text_color": RED,
    "button_cancel_text_color_hover": RED,
    "slider_color": AMBER,
    "table_even_background_fill": PANEL,
    "table_odd_background_fill": SLATE,
    "code_background_fill": SLATE,
    "loader_color": AMBER,
    "error_background_fill": RED_SURFACE,
    "error_border_color": "#7A3B3B",
    "error_text_color": RED,
    "error_icon_color": RED,
    "shadow_drop": "none",
    "shadow_drop_lg": "0 8px 24px #0006",
}
# The same in both: these have no second name.
SHARED = {
    "block_radius": "8px",
    "container_radius": "8px",
    "input_radius": "6px",
    "button_large_radius": "6px",
    "button_medium_radius": "6px",
    "button_small_radius": "5px",
    "checkbox_border_radius": "4px",
    "block_title_text_weight": "600",
    "block_label_text_weight": "500",
    "button_large_text_weight": "600",
    "button_medium_text_weight": "500",
    "block_border_width": "1px",
    "layout_gap": "14px",
    "form_gap_width": "14px",
    "block_padding": "12px 14px",
    "block_title_text_size": "13px",
    "block_label_text_size": "12px",
    "block_info_text_size": "12.5px",
    "input_text_size": "14px",
    "button_medium_text_size": "14px",
    "button_large_text_size": "15px",
}


def theme() -> gr.themes.Base:
    """Gradio's base theme in the studio's colours and type."""
    made = gr.themes.Base(
        primary_hue=gr.themes.colors.amber,
        neutral_hue=gr.themes.colors.slate,
        text_size=gr.themes.sizes.text_md,
        font=[gr.themes.Font("IBM Plex Sans"), "system-ui", "sans-serif"],
        font_mono=[gr.themes.Font("IBM Plex Mono"), "ui-monospace", "monospace"],
    )
    known = set(vars(made))
    both = {}
    for name, value in VARIABLES.items():
        both[name] = value
        if f"{name}_dark" in known:
            both[f"{name}_dark"] = value
    return made.set(**both, **SHARED)


def routes() -> list[Mount]:
    """Routes for Gradio's server: the files under ``assets/``."""
    return [Mount(ROUTE, StaticFiles(directory=ASSETS), name="studio-assets")]
