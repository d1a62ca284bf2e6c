// The two things that the runner wants of llama.cpp and C cannot say: llama_get_memory_breakdown returns a
// std::map, and gguf_kv_to_str a std::string. What is declared here is copied from llama-ext.h, llama-impl.h and
// gguf.h of the one version that Cargo.toml names.

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

struct llama_context;
struct ggml_backend_buffer_type;
typedef struct ggml_backend_buffer_type * ggml_backend_buffer_type_t;

struct llama_memory_breakdown_data {
    size_t model   = 0;
    size_t context = 0;
    size_t compute = 0;
};

std::map<ggml_backend_buffer_type_t, llama_memory_breakdown_data>
llama_get_memory_breakdown(const llama_context * ctx);

struct tieline_buffer {
    ggml_backend_buffer_type_t type;
    uint64_t weights;
    uint64_t kv;
    uint64_t compute;
};

// Writes at most `room` entries to `out`, and returns how many there are.
extern "C" size_t tieline_memory(const llama_context * ctx, tieline_buffer * out, size_t room) noexcept {
    size_t count = 0;
    for (const auto & [type, bytes] : llama_get_memory_breakdown(ctx)) {
        if (count < room) {
            out[count] = { type, bytes.model, bytes.context, bytes.compute };
        }
        count++;
    }
    return count;
}

// Arrays of metadata of which no text was made.
static uint64_t arrays_left_out = 0;

extern "C" uint64_t tieline_arrays_left_out() noexcept {
    return arrays_left_out;
}

#ifdef TIELINE_ARRAYS_LEFT_OUT

struct gguf_context;

extern "C" int gguf_get_kv_type(const gguf_context * ctx, int64_t key_id);

static const int GGUF_TYPE_ARRAY = 9;

std::string real_gguf_kv_to_str(const gguf_context * ctx, int i)
    __asm__("__real__Z14gguf_kv_to_strB5cxx11PK12gguf_contexti");

std::string wrapped_gguf_kv_to_str(const gguf_context * ctx, int i)
    __asm__("__wrap__Z14gguf_kv_to_strB5cxx11PK12gguf_contexti");

// llama.cpp writes out all of the vocabulary, its scores and its merges for forty letters of a log that nobody reads
// here: a twelfth of the time that loading a small model takes. It asks for an array's text for that log alone.
std::string wrapped_gguf_kv_to_str(const gguf_context * ctx, int i) {
    if (gguf_get_kv_type(ctx, i) == GGUF_TYPE_ARRAY) {
        arrays_left_out++;
        return "[...]";
    }
    return real_gguf_kv_to_str(ctx, i);
}

#endif
