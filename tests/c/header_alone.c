/* The header needs nothing before it, and may come twice. Compiled as C and as C++. */
#include <pvera.h>
#include <pvera.h>

/* Its inline functions and literals are used, in both languages. */
pvera_dtype a_dtype(void);
pvera_dtype a_dtype(void) {
    float value = 0;
    return pvera_f32(&value, 1, 1).cols == pvera_f32_mut(&value, 1, 1).cols ? PVERA_BF16 : PVERA_F32;
}
