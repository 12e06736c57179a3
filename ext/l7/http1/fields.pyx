"""Header fields and characters, as tables that are filled once, at import."""
cdef bint same_text(const char* data, size_t length, const char* text, size_t text_length) noexcept nogil:
    return False


cdef int field_of(const char* name, size_t length, bint* is_alias) noexcept nogil:
    return FIELD_OTHER
