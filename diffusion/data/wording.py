"""Caption templates need a little English."""


def with_article(words: str) -> str:
    """ "ring" -> "a ring", "orange ring" -> "an orange ring"; by spelling."""
    return f"{'an' if words[0].lower() in 'aeiou' else 'a'} {words}"
