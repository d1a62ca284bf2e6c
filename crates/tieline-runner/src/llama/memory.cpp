// The one thing that the runner wants of llama.cpp and C cannot say: llama_get_memory_breakdown returns a
// std::map. What is declared here is copied from llama-ext.h of the one version that Cargo.toml names.

#include <cstddef>
#include <cstdint>
#include <map>

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
