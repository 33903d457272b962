// The tests, by kernel.
#pragma once

void test_numbers();
void test_put();
void test_resolve();
void test_product_split_k();
void test_product_split_j();
void test_product_tile_k();
void test_product_tile_j();
void test_combine();
void test_mask();
void test_latent();
void test_normals();
void test_finish();
void test_weigh();
void test_slopes();
void test_divergence();
void test_kl_total();
void test_sums();
void test_deliver();
void test_accumulate();
