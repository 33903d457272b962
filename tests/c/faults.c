/* Faults on purpose, proof that the sanitizers watch over the tests, which have to fail here: faults overrun|leak|shift. */
#include "world.h"

int main(int argc, char **argv) {
    const char *fault = argc == 2 ? argv[1] : "";
    struct world *world = world_new(NULL, NULL, 0, "none");
    float *volatile y = calloc(ROWS * OUT, sizeof *y); /* volatile: the compiler knows no size that it could check by itself */
    const pvera_matrix x = pvera_f32(world->x, ROWS, IN);
    const pvera_matrix_mut out = pvera_f32_mut(y, ROWS, OUT);
    MUST(pvera_forward(world->context, world->q, &x, NULL, NULL, NULL, &out));
    volatile int shift = 32;
    if (strcmp(fault, "overrun") == 0) y[ROWS * OUT] = 1;
    if (strcmp(fault, "shift") == 0) printf("%d\n", 1 << shift);
    free(y);
    if (strcmp(fault, "leak") == 0) world->adapter = NULL; /* a handle of the library is never freed */
    world_free(world);
    return 0;
}
