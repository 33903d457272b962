/* What the fragments of docs/embedding.md use without declaring it: handles, and what belongs to the host. */
#include <pvera.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

/* The function that a fragment becomes the body of. */
pvera_error *fragment(void);

extern pvera_context *context;
extern pvera_model *model;
extern pvera_adapter *adapter;
extern pvera_snapshot *snapshot;
extern const pvera_linear *linear;
extern const pvera_linear *linears[3];
extern pvera_statistics *statistics;
extern const pvera_rows rows;
extern const pvera_noise noise;
extern pvera_tape *tape;

extern pvera_matrix x, dy;
extern pvera_matrix_mut y, dx;
extern size_t n, hidden, layer;

/* Of the host. */
struct token {
    uint64_t sequence, position;
    int32_t slot;
    uint32_t sample;
};
extern const struct token batch[64];
extern int32_t slot[64];
extern uint64_t identity[64];
extern uint32_t sample[64];
extern void *pool, *stream, *device_seed;
extern float *p, *fused_y, *parameters, *gradients;
extern size_t index_in_pool, pool_size, p_width, parameter_count;
extern const char *folder;
extern const char *const *names;
extern unsigned char *weight;

void run_on_pool(void *user, size_t count, pvera_task run, void *task);
void quantised_product(const void *weight, const pvera_matrix *x, const pvera_matrix_mut *y);
void all_reduce_sum(float *values, size_t count);
void log_warning(void *user, const char *message);
void log_line(const char *text);
void reject_request(const char *why);
int32_t keep_going(void *user, const char *stage, uint64_t done, uint64_t total);
