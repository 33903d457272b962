// A small HTTP server around pvera: it reads digits with a frozen network and PVeRA adapters, says how sure it is, and swaps
// adapters while it answers.
//
//	POST   /predict          {"adapter": "transposed", "rows": [[64 numbers]], "samples": 16}
//	GET    /adapters         names and versions
//	GET    /load             how many requests were computed in how many passes over the network
//	PUT    /adapters/NAME    {"config": {adapter_config.json}, "tensors": "adapter_model.safetensors in base64"}
//	DELETE /adapters/NAME
//
// main.go starts and stops it, handlers.go speaks HTTP, batcher.go makes one forward of many requests, registry.go keeps the
// adapters, network.go computes.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

const patience = 10 * time.Second // for requests that run when the server stops

func main() {
	address := flag.String("listen", "127.0.0.1:8080", "address to listen on")
	base := flag.String("base", "examples/data/base.bin", "file of the base network")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("listening on %s", listener.Addr())
	if err := serve(ctx, listener, *base); err != nil {
		log.Fatal(err)
	}
}

// serve answers until ctx ends, then finishes what has begun.
func serve(ctx context.Context, listener net.Listener, base string) (err error) {
	service, err := newService(base, runtime.NumCPU()-1)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	defer func() { err = errors.Join(err, service.close()) }()
	server := &http.Server{Handler: service.handler(), ReadHeaderTimeout: patience}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	limited, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := server.Shutdown(limited); err != nil {
		return errors.Join(err, server.Close())
	}
	return nil
}
