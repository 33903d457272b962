/* What clients of later parts need and include/pvera.h does not have yet. It will be added there, and nothing that is there
 * has to change for it. */
#ifndef PVERA_FUTURE_H
#define PVERA_FUTURE_H

#include <pvera.h>

/* Part 3 (CUDA). An error that kernels found while they ran, such as a bad slot in device memory: the first since the last
 * check, which clears it. Waits for the context's stream. */
pvera_error *pvera_context_check(const pvera_context *context);

#endif
