"""A head as offsets into its buffer."""
cdef void head_open(Head* head, uint32_t max_bytes, uint32_t max_line, uint32_t max_headers) noexcept nogil:
    pass


cdef void head_clear(Head* head) noexcept nogil:
    pass


cdef void head_release(Head* head) noexcept nogil:
    pass


cdef const Header* find_header(const Head* head, const char* name, size_t length, uint32_t start) noexcept nogil:
    return NULL


cdef bytes join_values(const Head* head, const char* name, size_t length, bytes separator):
    return None
