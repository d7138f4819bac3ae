"""The drawings: they take no data."""

from course_utils.plots import drawings

FIGURES = {
    "drawing of asked_and_done": lambda: drawings.asked_and_done(),
    "drawing of block": lambda: drawings.block(),
    "drawing of computed_again": lambda: drawings.computed_again(),
    "drawing of cut_in_two": lambda: drawings.cut_in_two(),
    "drawing of generation_loop": lambda: drawings.generation_loop(),
    "drawing of many_heads": lambda: drawings.many_heads(),
    "drawing of mask_offset": lambda: drawings.mask_offset(),
    "drawing of memory": lambda: drawings.memory(),
    "drawing of names_and_shapes": lambda: drawings.names_and_shapes(),
    "drawing of no_looking_ahead": lambda: drawings.no_looking_ahead(),
    "drawing of nothing_is_read": lambda: drawings.nothing_is_read(),
    "drawing of one_adapter": lambda: drawings.one_adapter(),
    "drawing of one_by_one_or_side_by_side": lambda: drawings.one_by_one_or_side_by_side(),
    "drawing of one_head": lambda: drawings.one_head(),
    "drawing of one_layer_two_processes": lambda: drawings.one_layer_two_processes(),
    "drawing of one_token_reads": lambda: drawings.one_token_reads(),
    "drawing of page_table": lambda: drawings.page_table(),
    "drawing of positions": lambda: drawings.positions(),
    "drawing of prefill_and_decode": lambda: drawings.prefill_and_decode(),
    "drawing of query_meets_keys": lambda: drawings.query_meets_keys(),
    "drawing of script": lambda: drawings.script(),
    "drawing of square_and_tile": lambda: drawings.square_and_tile(),
    "drawing of what_is_kept": lambda: drawings.what_is_kept(),
    "drawing of what_runs": lambda: drawings.what_runs(),
    "drawing of what_smaller_caches_keep": lambda: drawings.what_smaller_caches_keep(),
    "drawing of whole_model": lambda: drawings.whole_model(),
}
