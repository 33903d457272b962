// The tests of each of the kernels' files.
#pragma once

void test_numbers();
void test_lists();
void test_product();
void test_combine();
void test_mask();
void test_latent();
void test_normals();
void test_finish();
void test_slopes();
void test_divergence();
void test_sums();
void test_weigh();
void test_accumulate();
